from sanic import Sanic
from sanic.response import text

app = Sanic("greeter")


@app.get("/")
async def index(request):
    return text("Hello from Sanic!")


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=8000)
