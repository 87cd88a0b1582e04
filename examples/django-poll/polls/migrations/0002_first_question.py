from django.db import migrations


def ask(apps, schema_editor):
    question = apps.get_model("polls", "Question").objects.create(text="Where do we go for lunch?")
    choice = apps.get_model("polls", "Choice")
    for text in ("The ramen place", "The park, with sandwiches", "The cafeteria, as always"):
        choice.objects.create(question=question, text=text)


class Migration(migrations.Migration):
    dependencies = [("polls", "0001_initial")]

    operations = [migrations.RunPython(ask, migrations.RunPython.noop)]
