"""`python -m voicetextblender.cli`, where the command `vtb` is not on the path."""

from voicetextblender.cli import main

main()
