from django.db import migrations


class Migration(migrations.Migration):
    dependencies = (("shop", "0002_add_total"),)
    operations = (migrations.RemoveField("Order", "note"),)
