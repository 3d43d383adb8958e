"""Images as files: `decode.decode` gives an upright sRGB picture or the reason why the bytes are none, and
`header.read_header` reads no more than a header. Other rooms use these two, `Unreadable` and `LazyBytes`."""
