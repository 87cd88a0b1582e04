from microdot import Microdot

app = Microdot()


@app.get("/")
async def index(request):
    return "Hello from Microdot!"


app.run()
