import asyncio

import tornado.web


class Index(tornado.web.RequestHandler):
    def get(self):
        self.write("Hello from Tornado!")


async def main():
    tornado.web.Application([("/", Index)]).listen(8888)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
