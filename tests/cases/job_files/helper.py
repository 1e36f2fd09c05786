import token
from queue import OWN

BOTH = [OWN, token.OWN]
