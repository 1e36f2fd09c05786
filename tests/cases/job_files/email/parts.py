DEEP = "!"
