"""What a student or an export costs: bytes, memory and time, on the runtime that runs it."""
