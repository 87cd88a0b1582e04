from robyn import Robyn

app = Robyn(__file__)


@app.get("/")
async def index(request):
    return "Hello from Robyn!"


if __name__ == "__main__":
    app.start(port=5000)
