from fasthtml.common import H1, Titled, fast_app, serve

app, rt = fast_app()


@rt("/")
def get():
    return Titled("Greeter", H1("Hello from FastHTML!"))


serve()
