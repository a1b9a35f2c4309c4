SELECT
    traces.*,
    queries.prompt,
    queries.target,
    queries.parts,
    queries.chat,
    queries.query_set,
    encoders.encoder_id,
    encoders.dim,
    encoders.moments,
    encoders.settings AS encoder_settings,
    encoders.coverage,
    models.name AS model,
    models.architecture,
    models.n_parameters,
    models.weights_hash,
    models.tokenizer_hash,
    models.moments_hash,
    curvatures.n_rows AS curvature_rows,
    curvatures.mixing AS curvature_mixing,
    curvatures.diagnostics AS curvature_diagnostics
FROM traces
JOIN queries USING (query_id)
LEFT JOIN encoders ON encoders.name = traces.encoder
LEFT JOIN models USING (model_id)
LEFT JOIN curvatures ON curvatures.encoder = traces.encoder AND curvatures.name = traces.curvature
WHERE traces.trace_id = $trace_id;
