from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = (("shop", "0001_initial"),)
    operations = (migrations.AddField("Order", "total", models.IntegerField(default=0)),)
