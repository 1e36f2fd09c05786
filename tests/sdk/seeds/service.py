function = new_function("service", "func")
data = [1, 2, 3]

# <verbatim>
run = function.run("serve", ...)
# </verbatim>

run.wait()
del sent[:]

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

asked = list(sent)

# <verbatim>
run.refresh()
run.status
# </verbatim>

show(asked=asked, answer=run.invoke(json=json).json(), service=run.status.service)
run.stop()
