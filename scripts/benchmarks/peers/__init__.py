"""Other ways to do the job. `table` lists them; what stands beside it are the servers."""
