"""Other ways to do the job, each a server of its own: `python -m scripts.benchmarks.peers.NAME PORT FOLDER`."""
