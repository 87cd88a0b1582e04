from bottle import route, run


@route("/")
def index():
    return "Hello from Bottle!"


run(host="localhost", port=8080)
