"""Forecasts a build: `sample` builds a few inputs, `facts` reads what that took, `forecast` projects it on the whole.
`survey` counts what headers alone say of a collection."""
