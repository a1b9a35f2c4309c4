"""What is told of what happens, and to whom: logs, spans, metrics. Every layer may tell; this one knows none."""
