"""The commands of `medfmc`: arguments and what is printed. The work is done in the modules beside this folder."""
