"""Whether work can succeed, judged from its inputs before it waits for a trainer."""
