"""Operations of the API: shapes of requests and responses.

Each is declared once, for validation and for OpenAPI.
"""
