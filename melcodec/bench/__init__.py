"""What a machine does with the codec, as shares of what it does with arithmetic, memory or operations alone.

`work` counts what a pass computes and moves, `tasks` says what is timed, `run` times it and sets it beside the
ceilings, `machine` says where.
"""
