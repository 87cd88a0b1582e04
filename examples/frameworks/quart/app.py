from quart import Quart

app = Quart(__name__)


@app.get("/")
async def index():
    return "Hello from Quart!"


if __name__ == "__main__":
    app.run()
