import cherrypy


class Greeter:
    @cherrypy.expose
    def index(self):
        return "Hello from CherryPy!"


cherrypy.quickstart(Greeter())
