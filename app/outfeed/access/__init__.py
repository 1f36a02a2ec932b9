"""Access control: users, credentials, sign-in and request checks."""
