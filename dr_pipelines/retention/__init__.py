"""What is kept and what goes: a pure planner with reasons, guards that stop it, and its careful execution."""
