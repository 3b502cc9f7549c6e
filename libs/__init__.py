"""What the services share: `common` is mechanism, `contracts` is what they say to each other."""
