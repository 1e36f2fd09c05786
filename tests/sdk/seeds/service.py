"""The platform's part is done here: the service, and telling the run of it."""

function = new_function("form1", "func1")
data = [1, 2, 3]

# <verbatim>
run = function.run("serve", ...)
# </verbatim>

run, asked = with_service(run)

# <verbatim>
json = {
    "some-func-param": data
}

run.invoke(json=json)
# </verbatim>

# <verbatim>
json = {
    "some-func-param": data
}

run.invoke(method="POST", json=json)
# </verbatim>

# <verbatim>
run.refresh()
run.status
# </verbatim>

show(asked=asked, service=run.status.service)
