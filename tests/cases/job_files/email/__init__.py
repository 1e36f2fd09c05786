from . import parts

OWN = "email" + parts.DEEP
