from pyramid.config import Configurator
from pyramid.response import Response
from waitress import serve


def index(request):
    return Response("Hello from Pyramid!")


if __name__ == "__main__":
    with Configurator() as config:
        config.add_route("index", "/")
        config.add_view(index, route_name="index")
        app = config.make_wsgi_app()
    serve(app, port=6543)
