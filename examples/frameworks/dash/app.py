from dash import Dash, Input, Output, callback, dcc, html

app = Dash(__name__, title="Greeter")
app.layout = html.Div([dcc.Input("you", id="name"), html.P(id="greeting")])


@callback(Output("greeting", "children"), Input("name", "value"))
def greet(name):
    return f"Hello, {name}!"


if __name__ == "__main__":
    app.run(debug=False)
