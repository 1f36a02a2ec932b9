from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("shop", "0003_remove_note"),)
    operations = (migrations.AlterField("Order", "status", models.CharField(max_length=40)),)
