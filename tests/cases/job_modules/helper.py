NAME = "helper beside main"
