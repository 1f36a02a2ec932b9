"""What an operation of the API takes and answers, said once: for its checks and for the OpenAPI document."""
