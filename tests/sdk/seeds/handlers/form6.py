# <verbatim>
# 6. Init function for remote execution
def init(context, param1, param2):
    # The init function is a function executed by the nuclio wrapper
    # before the execution of the user handler.
    # The context param is overridden by the runtime with the nuclio context,
    # the param1 and param2 are passed by the user at runtime into runs init_parameters
# </verbatim>
    context.total = param1 + param2


def main(context):
    return context.total
