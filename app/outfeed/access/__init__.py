"""Access control: users, tokens, sessions, tickets, sign-in, and the check of each request."""
