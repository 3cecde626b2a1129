"""Runs in the environment of a user's task, where Flyte is and nothing of ours: started by path, never imported by the rest."""
