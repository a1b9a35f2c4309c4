"""How a passage becomes a vector: models, projected gradients, second moments, curvature. Pure torch.

This layer knows neither the lake nor the catalog; it takes texts and settings and gives float32 vectors.
"""
