def func(**parameters):
    return parameters
