def check(n):
    if n > 0:
        raise ValueError("n is too large")
    return n
