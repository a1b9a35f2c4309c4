"""The explorer: influence in a browser, for people who look rather than type.

- `app` makes the application of an `Explorer`, which is what pages read from: the lake, sessions, jobs, settings.
- `page` says what a page and an action are; `pages/NAME.py` is one of them each, with `templates/NAME.html.j2`.
- `parameters` turns query strings and forms into what a page takes, and `openapi` describes the same types.
- `kept` keeps what many read, `waiting` stops what nobody waits for, `plots` draws rows of statements.
- `readers` keeps sessions for readers, `jobs` runs traces one after another, `asker` is what jobs ask.
- `guard` lets requests in or not; `failures` says what went wrong, as a page or as JSON.
- `corpus` and `asked` write the statements that list documents and queries; `evaluated` reads evaluations.
- `render` fills templates, with the filters and the cards of reports; `assets` has styles and scripts.

Notable: every page has a JSON twin under `/api` and the same path, computed by the same function from the same
parameters. Pages work without scripts. A page never changes anything, and never runs a model: actions do, by POST.
"""
