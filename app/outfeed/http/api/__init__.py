"""Operations of the API: requests and responses, declared once for checks and for OpenAPI."""
