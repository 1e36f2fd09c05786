def event_and_context(event, context, n: int):
    context.logger.info("counting")
    return {"body": event.body, "id": event.id, "trigger": event.trigger.kind, "n": n}


def events(events, n: int):
    return [events.body["n"], n]


def same_context(context):
    return getattr(context, "seen", "nothing")


def project_and_run(project, run):
    return [project.name, run.id, run.spec.parameters]


def init_run(context):
    context.who = context.run.id


def from_context(context):
    return [context.project.name, context.who]
