"""What a power cut or a failing call may do to what we write: recorded from real system calls, and tried.

`tracing` stops a forked child at its system calls, `recording` keeps what they did to the files of a folder, `states`
makes of that what a crash may leave, `operations` are what is tried, and `trying` tries it.
"""
