"""A second implementation of FHIR over bundles: `second.py R4|R5 FILE...` prints `FILE<tab>ok` or what it does not like.

R4 is read as R4B, whose resources that memebg uses are those of R4; the package has no R4.
"""

import json
import sys

if sys.argv[1] == "R5":
    from fhir.resources.bundle import Bundle
else:
    from fhir.resources.R4B.bundle import Bundle

for file in sys.argv[2:]:
    with open(file, encoding="utf-8") as text:
        resource = json.load(text)
    try:
        Bundle.model_validate(resource)
        print(f"{file}\tok")
    except ValueError as error:
        print(f"{file}\t{' '.join(str(error).split())}")
