def run():
	x = 1
        return x
