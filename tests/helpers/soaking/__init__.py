"""Random commands that are killed, stopped, continued and short of room, each beside a twin that nobody disturbs."""
