"""What is stored: Arrow schemas of the Lance tables, models of the catalog, ids, settings and the error tree.

This layer knows neither how nor where: it imports no storage and no model code.
"""
