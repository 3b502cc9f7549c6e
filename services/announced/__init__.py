"""What the services announce and answer, as documents made from the code: `make contracts`.

`docs/api/events/<Type>.json` is the published schema of each event, `docs/api/asyncapi.json` the
whole as AsyncAPI 3, `docs/events.md` the catalogue for people. `docs/api/openapi.json` describes
the calls that the gateway serves, `docs/api/problems.md` lists what they may be refused by.
"""
