import web

urls = ("/", "index")


class index:
    def GET(self):
        return "Hello from web.py!"


app = web.application(urls, globals())

if __name__ == "__main__":
    app.run()
