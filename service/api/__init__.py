"""HTTP in and out: routes, parameters, schemas, problems."""
