"""Pages of the control plane, for people: server-rendered, from the same functions as the API answers."""
